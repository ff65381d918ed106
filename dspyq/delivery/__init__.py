"""How jobs reach workers: records in Redis are the truth, kombu's lists are only doorbells."""
