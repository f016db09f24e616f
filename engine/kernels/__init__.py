"""What a step of a model computes on a CPU, compiled when it is first needed."""
