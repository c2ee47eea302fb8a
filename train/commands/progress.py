"""What is said while a run goes on."""

PATIENCE = 100  # steps of a comparison below what a constant reaches, before that is said


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


class ConstantWatch:
    """Warns of a comparison that has stayed below what a constant prediction would reach, then stays silent for as
    long again as it has been so."""

    def __init__(self):
        self._since: dict[str, int] = {}
        self._quiet_until: dict[str, int] = {}

    def see(self, record, say) -> None:
        """Look at a record of the log; `say` prints a line."""
        for name in sorted({key.partition("/")[0] for key in record.fit}):
            reached, constant = record.fit[f"{name}/cos"], record.fit[f"{name}/constant"]
            if reached >= constant:
                self._since.pop(name, None)
                continue
            since = self._since.setdefault(name, record.step)
            if record.step - since >= PATIENCE and record.step >= self._quiet_until.get(name, 0):
                self._quiet_until[name] = 2 * record.step - since
                say(
                    f"warning: step {record.step}: {name} has reached a cosine of {reached:.2f}, a constant vector "
                    f"would have {constant:.2f}, and so it has been since step {since}: this is not learned; set "
                    "predictors=own, or give the term no weight"
                )
