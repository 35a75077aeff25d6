"""Built-in adapters: one file for each framework, the only place where its name occurs."""
