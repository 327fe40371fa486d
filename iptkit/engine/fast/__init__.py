"""Fast forwards of Llama and BERT models: packed weights, flat rows, fused attention."""
