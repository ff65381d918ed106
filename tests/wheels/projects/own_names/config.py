NAME = "acme's configuration"
