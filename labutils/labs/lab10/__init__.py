"""Lab 10: fake quantization with a gradient, a step of training, conversion, and the gradient of a scale."""

LESSON = "10_training"  # the file in lessons/, without its ending
