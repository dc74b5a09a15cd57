"""Small duties of one shape: each module has run_once() that returns counts. Looping lives in engine.worker."""
