from . import attention, bert, elementwise, llama, llama_forward, memory, packed_weights

__all__ = [
    "attention",
    "bert",
    "elementwise",
    "llama",
    "llama_forward",
    "memory",
    "packed_weights",
]
