"""From a suite to records: cases, isolated workers, executors, and the session that drives them."""
