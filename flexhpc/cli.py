"""The one door (placeholder during build)."""


def main() -> None: ...
