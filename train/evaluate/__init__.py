"""How good a trained model is on samples it was not trained on."""
