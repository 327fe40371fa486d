"""The file in BIG-bench and the reader of each task of ipt120."""

from __future__ import annotations

from iptkit.tasks.sources import passages, recast
from iptkit.tasks.sources.records import Reader, answers, choices, labels

YES_NO = {"Yes": "yes", "No": "no", "True": "yes", "False": "no"}
SENTENCE_AND_QUESTION = r"(?:Sentence|Context|Fact): (?P<sentence>.+?)\s*Question: (?P<question>.+)"
SPEAKERS = r"(?P<dialog>.+) -----.*? \"(?P<first>.+)\" and \"(?P<second>.+)\""
NI = "natural_instructions/subtask"
SQUAD = "squad_shifts/"
TRUE_FALSE = {"T": "true", "F": "false", "True": "true", "False": "false", "Neither": "neither"}
TASKS: dict[str, tuple[str, Reader]] = {
    # classification
    "bb-anachronisms": ("anachronisms/task.json", labels(names=YES_NO)),
    "bb-analogical_similarity": (
        "analogical_similarity/task.json",
        labels(r"(?P<first>.+) <-> (?P<second>.+\.) [^.]+"),
    ),
    "bb-epistemic_reasoning": (
        "epistemic_reasoning/task.json",
        labels(r"Premise: (?P<premise>.+) Hypothesis: (?P<hypothesis>.+)"),
    ),
    "bb-fact_checker-fever": ("fact_checker/fever/task.json", labels(r"[^:]+: (?P<claim>.+)\s+Q: .+")),
    "bb-fact_checker-politifact": (
        "fact_checker/politifact/task.json",
        labels(r"On (?P<date>[^,]+\d), [^:]+: (?P<claim>.+)\s+Q: .+"),
    ),
    "bb-formal_fallacies_syllogisms_negation": (
        "formal_fallacies_syllogisms_negation/task.json",
        labels(r'"(?P<text>.+)"\s+[^"]+'),
    ),
    "bb-hyperbaton": ("hyperbaton/task.json", labels(r'[^"]+" (?P<first>.+) " b " (?P<second>.+) " \?')),
    "bb-implicatures": ("implicatures/task.json", labels()),
    "bb-intent_recognition": ("intent_recognition/task.json", labels(r"\w+: (?P<text>.+)")),
    "bb-logical_fallacy_detection": ("logical_fallacy_detection/task.json", recast.fallacies),
    "bb-metaphor_boolean": (
        "metaphor_boolean/task.json",
        labels(r"(?P<first>.+) <--> (?P<second>.+)", YES_NO),
    ),
    "bb-misconceptions": ("misconceptions/task.json", labels(names=TRUE_FALSE)),
    "bb-movie_dialog_same_or_different": ("movie_dialog_same_or_different/task.json", labels(SPEAKERS)),
    **{
        f"bb-multiemo-{kind}_sentence_en": (f"multiemo/{kind}_sentence_en/task.json", labels())
        for kind in ("hotels", "medicine", "products", "reviews")
    },
    "bb-navigate": ("navigate/task.json", labels(names=YES_NO)),
    "bb-presuppositions_as_nli": (
        "presuppositions_as_nli/task.json",
        labels(r"Sentence 1: (?P<premise>.+?)\s*Sentence 2: (?P<hypothesis>.+?)\s*\n\n[^\n]+"),
    ),
    "bb-social_support": ("social_support/task.json", labels()),
    "bb-sports_understanding": ("sports_understanding/task.json", labels()),
    "bb-strategyqa": ("strategyqa/task.json", labels(names=YES_NO)),
    "bb-vitaminc_fact_verification": (
        "vitaminc_fact_verification/task.json",
        labels(r"(?P<passage>.+)\nClaim: (?P<claim>.+)", TRUE_FALSE),
    ),
    "bb-winowhy": ("winowhy/task.json", labels(r"(?P<text>.+?\.) (?P<reason>The '.+)")),
    "bb-cs_algorithms-valid_parentheses": ("cs_algorithms/valid_parentheses/task.json", labels()),
    "ni-046-miscellaenous_question_typing": (
        NI + "046_miscellaenous_question_typing/task.json",
        recast.question_types,
    ),
    "bb-com2sense": ("com2sense/big-bench-data.json", recast.statements("sent", "label", YES_NO)),
    "bb-convinceme": (
        "convinceme/statements.json",
        recast.statements("statement", "is_true", {True: "true", False: "false"}),
    ),
    "bb-talkdown": ("talkdown/test_data.jsonl", recast.statements("text", "label", {0: "no", 1: "yes"})),
    **{
        f"bb-squad-{domain}-answerable": (f"{SQUAD}{domain}_v1.0.json", passages.answerable)
        for domain in ("amazon_reviews", "new_wiki")
    },
    # multiple choice
    "bb-sva-nounpp": ("subject_verb_agreement/nounpp_english.json", choices()),
    "bb-sva-linzen2016": ("subject_verb_agreement/linzen2016_english.json", choices()),
    "bb-disambiguation_qa": ("disambiguation_qa/task.json", choices()),
    "bb-elementary_math_qa-question_only": ("elementary_math_qa/question_only/task.json", choices()),
    "bb-goal_step_wikihow-goal_inference": (
        "goal_step_wikihow/goal_inference/task.json",
        choices(r"[^']+'(?P<text>.+)' is"),
    ),
    "bb-goal_step_wikihow-step_inference": (
        "goal_step_wikihow/step_inference/task.json",
        choices(r"[^']+'(?P<text>.+)' is"),
    ),
    "bb-goal_step_wikihow-step_ordering": (
        "goal_step_wikihow/step_ordering/task.json",
        choices(r"[^']+'(?P<text>.+?)', .+"),
    ),
    "bb-logical_deduction-three_objects": ("logical_deduction/three_objects/task.json", choices()),
    "bb-movie_recommendation": ("movie_recommendation/task.json", choices(r"(?P<text>.+):")),
    "bb-ruin_names": ("ruin_names/task.json", choices(r"[^']+'(?P<text>.+)'\?")),
    "bb-social_iqa": ("social_iqa/task.json", choices()),
    "bb-unit_conversion-unit_identification": (
        "unit_conversion/unit_identification/task.json",
        choices(r"(?P<text>.+) is"),
    ),
    "bb-truthful_qa": ("truthful_qa/task_mc.json", choices()),
    "bb-coda-noisy-easy": ("context_definition_alignment/CoDA-noisy-easy.json", recast.glosses),
    # questions and answers
    "ni-004-mctaco_answer_generation_event_duration": (
        NI + "004_mctaco_answer_generation_event_duration/task.json",
        answers(SENTENCE_AND_QUESTION),
    ),
    "ni-016-mctaco_answer_generation_frequency": (
        NI + "016_mctaco_answer_generation_frequency/task.json",
        answers(SENTENCE_AND_QUESTION),
    ),
    "ni-024-cosmosqa_answer_generation": (
        NI + "024_cosmosqa_answer_generation/task.json",
        answers(SENTENCE_AND_QUESTION),
    ),
    "ni-033-winogrande_answer_generation": (
        NI + "033_winogrande_answer_generation/task.json",
        answers(r".+?Question: (?P<question>.+)"),
    ),
    "ni-041-qasc_answer_generation": (
        NI + "041_qasc_answer_generation/task.json",
        answers(SENTENCE_AND_QUESTION),
    ),
    "ni-051-multirc_correct_answer_single_sentence": (
        NI + "051_multirc_correct_answer_single_sentence/task.json",
        answers(SENTENCE_AND_QUESTION),
    ),
    "bb-periodic_elements-subtask_1": ("periodic_elements/subtask_1/task.json", answers()),
    **{
        f"bb-squad-{domain}": (f"{SQUAD}{domain}_v{version}.json", passages.answers)
        for domain, version in (("amazon_reviews", 1.0), ("nyt", 1.0), ("reddit", 1.0), ("squaddev", 1.1))
    },
    **{
        f"bb-wikidata-{name}": ("qa_wikidata/task.json", answers(rf"The {relation} (?P<subject>.+) is"))
        for name, relation in {
            "country": r"country of(?! citizenship| origin)",
            "native-language": "native language of",
            "instrument": "instrument of",
            "official-language": "official language of",
        }.items()
    },
    "bb-object_counting": ("object_counting/task.json", answers()),
    "bb-arithmetic-2_digit_addition": (
        "arithmetic/2_digit_addition/task.json",
        answers(r"\D+(?P<first>\d+) \w+ (?P<second>\d+)\?"),
    ),
    # generation
    **{
        f"bb-squad-{domain}-qgen": (f"{SQUAD}{domain}_v{version}.json", passages.questions)
        for domain, version in (("new_wiki", 1.0), ("squaddev", 1.1))
    },
    "bb-auto_categorization": ("auto_categorization/task.json", answers()),
    "bb-gem-asset": ("gem/asset/task.json", answers(is_sentence=True)),
    "bb-gem-common_gen": ("gem/common_gen/task.json", recast.words),
    "bb-gem-e2e_nlg": ("gem/e2e_nlg/task.json", answers(is_sentence=True)),
    "bb-gem-webnlg_en": ("gem/webnlg_en/task.json", recast.verbalised),
    "bb-tense": ("tense/task.json", recast.tenses),
    "bb-linguistic_mappings-past_tense_json": ("linguistic_mappings/past_tense_json/task.json", answers()),
    "bb-linguistic_mappings-question_formation_json": (
        "linguistic_mappings/question_formation_json/task.json",
        answers(),
    ),
    "bb-international_phonetic_alphabet_transliterate": (
        "international_phonetic_alphabet_transliterate/task.json",
        answers(r"IPA: (?P<text>.+)\nEnglish:", is_sentence=True),
    ),
    "ni-034-winogrande_question_modification_object": (
        NI + "034_winogrande_question_modification_object/task.json",
        answers(r".+?Question: (?P<sentence>.+?)\s*Answer: (?P<answer>.+?)\.?", is_sentence=True),
    ),
    "ni-038-qasc_combined_fact": (
        NI + "038_qasc_combined_fact/task.json",
        answers(r"Fact 1: (?P<first>.+?)\s*Fact 2: (?P<second>.+)"),
    ),
    "bb-language_games-pig_latin_encode": (
        "language_games/pig_latin_encode/task.json",
        answers(is_sentence=True),
    ),
    "bb-word_sorting": ("word_sorting/task.json", answers()),
    "bb-word_unscrambling": ("word_unscrambling/task.json", answers(r"The word (?P<text>\w+) .+")),
    "bb-unnatural_in_context_learning-reverse_natural_content": (
        "unnatural_in_context_learning/reverse_natural_content/task.json",
        answers(),
    ),
    # extraction
    "ni-039-overlapping-words": (NI + "039_qasc_find_overlapping_words/task.json", recast.shared_words),
    "ni-044-essential-words": (
        NI + "044_essential_terms_identifying_essential_words/task.json",
        recast.essential_words,
    ),
    "bb-e2e-slots": ("gem/e2e_nlg/task.json", recast.restaurants()),
    "bb-e2e-slot-eatType": ("gem/e2e_nlg/task.json", recast.restaurants("eatType")),
    "bb-webnlg-subjects": ("gem/webnlg_en/task.json", recast.subjects),
}
