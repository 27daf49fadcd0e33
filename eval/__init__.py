"""Evaluation: probes and adapters at work, compared with controls; the notebooks live here."""
