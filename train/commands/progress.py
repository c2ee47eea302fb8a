"""What is said while a run goes on."""


class CollapseWatch:
    """Warns of features that become one, at most once in 100 steps."""

    def __init__(self):
        self._quiet_until = 0

    def see(self, record, say) -> None:
        """Look at a record of the log; `say` prints a line."""
        low = [f"{name} {value:.2f}" for name, value in record.spread.items() if value < 0.6]
        if low and record.step >= self._quiet_until:
            self._quiet_until = record.step + 100
            say(
                f"warning: step {record.step}: the spread of features is {', '.join(low)} (1 = even, 0 = collapsed); "
                "below 0.6 they transfer badly: lower lr, and keep stop_gradient=conventional"
            )
