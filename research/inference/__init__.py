"""What a trained run does for a person: classes of images and texts, translations, neighbours of words."""
