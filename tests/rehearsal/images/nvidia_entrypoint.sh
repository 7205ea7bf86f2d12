#!/bin/sh
# Stands for the entry point of NVIDIA's image: a banner, the checks, then the command.
echo "stand-in for NVIDIA's entry point, GPUs: ${NVIDIA_VISIBLE_DEVICES:-none}"
exec "$@"
