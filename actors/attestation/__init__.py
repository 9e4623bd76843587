"""What a machine shows of itself, the exam that its devices sit, and the verdict on both."""
