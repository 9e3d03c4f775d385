"""What is shared on the model hub, and the cards of it."""
