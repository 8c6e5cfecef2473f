"""Exercises: implement, derive, find the bug, explain; graded offline."""

from lora_np.exercises.check import check
