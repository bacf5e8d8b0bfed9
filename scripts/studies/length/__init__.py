"""dse study length: students as texts get longer."""
