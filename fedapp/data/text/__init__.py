"""Text as tokens: public vocabularies, and windows of tokens as examples."""
