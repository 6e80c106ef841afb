"""Apache Airflow provider for Luma Ray, the image-to-video model that Segmind serves."""

__version__ = "0.1.0"
