"""Cards of datasets: what is known of a version, as data, as tables and sentences, as Markdown and HTML."""
