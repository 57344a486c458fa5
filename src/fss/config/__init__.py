"""What a composed configuration means: checks, identity, error texts, the base learner it asks for."""
