"""Self-distillation: a student that sees masked frames predicts to which prototypes its teacher assigns whole ones."""
