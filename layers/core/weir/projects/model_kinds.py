"""The kinds of models: what one is for, and on which route it answers.

A request names a model of its route's own kind. The words are those of a model's document.
"""

CHAT, EMBEDDING, MODERATION = "chat", "embedding", "moderation"

# By kind, with the article that an English sentence needs.
SPELLED = {
    CHAT: "a chat model",
    EMBEDDING: "an embedding model",
    MODERATION: "a moderation model",
}
ROUTE_OF = {
    CHAT: "POST /v1/chat/completions",
    EMBEDDING: "POST /v1/embeddings",
    MODERATION: "POST /v1/moderations",
}
