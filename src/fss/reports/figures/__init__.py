"""The paper's figures and further ones, drawn from run files; modules with ``FIGURES`` are discovered automatically."""
