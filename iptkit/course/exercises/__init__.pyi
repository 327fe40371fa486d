from . import (
    answers,
    feedback,
    lesson00,
    lesson01,
    lesson02,
    lesson03,
    lesson04,
    lesson05,
    lesson06,
    lesson07,
    lesson08,
    lesson09,
    lesson90,
)
from .feedback import Feedback
from .lesson00 import check_00_1, check_00_2, check_00_3
from .lesson01 import check_01_1, check_01_2, check_01_3, check_01_4
from .lesson02 import check_02_1, check_02_2, check_02_3, check_02_4
from .lesson03 import check_03_1, check_03_2, check_03_3, check_03_4
from .lesson04 import check_04_1, check_04_2, check_04_3, check_04_4
from .lesson05 import check_05_1, check_05_2, check_05_3, check_05_4
from .lesson06 import check_06_1, check_06_2, check_06_3, check_06_4
from .lesson07 import check_07_1, check_07_2, check_07_3, check_07_4
from .lesson08 import check_08_1, check_08_2, check_08_3
from .lesson09 import check_09_1, check_09_2, check_09_3
from .lesson90 import check_90_1, check_90_2, check_90_3

__all__ = [
    "Feedback",
    "answers",
    "check_00_1",
    "check_00_2",
    "check_00_3",
    "check_01_1",
    "check_01_2",
    "check_01_3",
    "check_01_4",
    "check_02_1",
    "check_02_2",
    "check_02_3",
    "check_02_4",
    "check_03_1",
    "check_03_2",
    "check_03_3",
    "check_03_4",
    "check_04_1",
    "check_04_2",
    "check_04_3",
    "check_04_4",
    "check_05_1",
    "check_05_2",
    "check_05_3",
    "check_05_4",
    "check_06_1",
    "check_06_2",
    "check_06_3",
    "check_06_4",
    "check_07_1",
    "check_07_2",
    "check_07_3",
    "check_07_4",
    "check_08_1",
    "check_08_2",
    "check_08_3",
    "check_09_1",
    "check_09_2",
    "check_09_3",
    "check_90_1",
    "check_90_2",
    "check_90_3",
    "feedback",
    "lesson00",
    "lesson01",
    "lesson02",
    "lesson03",
    "lesson04",
    "lesson05",
    "lesson06",
    "lesson07",
    "lesson08",
    "lesson09",
    "lesson90",
]
