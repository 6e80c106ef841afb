"""The command line: ``python -m airflow_provider_luma COMMAND``, and the same as ``airflow luma-ray COMMAND``."""
