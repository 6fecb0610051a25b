"""Language-model backends behind one protocol. Layer: llm; `base`, `text`, `chat` and `cpu` are light,
`load`, `seq2seq` and `sampling` import torch and are imported only when a model is wanted."""
