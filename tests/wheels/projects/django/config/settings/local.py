from config.settings.base import *  # noqa: F403 - as cookiecutter-django does

DEBUG = True
