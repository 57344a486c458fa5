"""The paper's figures and other ones, drawn from the files of runs; a module with ``FIGURES`` is found by itself."""
