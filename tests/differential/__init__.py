"""The wrong-answer test: generated statements on one lone server and on the proxy over shards must agree."""
