"""Step 4.1 on more than one machine: Ray and Slurm."""
