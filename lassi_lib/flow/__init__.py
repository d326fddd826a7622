"""Glow: the invertible generative model whose latents everything else works on."""
