"""The APIs of self-hosted rerankers: Hugging Face's Text Embeddings Inference (TEI), Cohere and Jina."""
