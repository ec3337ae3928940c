//! When what happened in a boot, as seen on the console.

use std::{
    fmt::{self, Write as _},
    time::{Duration, Instant},
};

use crate::process::Line;

/// One line of `cvm-init`: `cvm-init[   3.214] STEP: text`.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// Seconds since the kernel started.
    pub seconds: f64,
    /// The step's stable word.
    pub step: String,
    /// What it says.
    pub text: String,
}

impl Step {
    /// Reads a console line; none where it is not `cvm-init`'s.
    pub fn parse(line: &str) -> Option<Self> {
        let rest = &line[line.find("cvm-init[")? + "cvm-init[".len()..];
        let (seconds, rest) = rest.split_once("] ")?;
        let (step, text) = rest.split_once(": ")?;
        Some(Self { seconds: seconds.trim().parse().ok()?, step: step.into(), text: text.into() })
    }
}

/// The phases of a boot, in milliseconds since power-on.
pub struct Timeline {
    /// Phase and when it ended.
    pub phases: Vec<(String, u128)>,
    /// `cvm-init`'s steps.
    pub steps: Vec<Step>,
}

impl Timeline {
    /// From a console's lines; `ready` is when NVFLARE first answered.
    pub fn new(power_on: Instant, lines: &[Line], ready: Option<Instant>) -> Self {
        let ms = |at: Instant| at.saturating_duration_since(power_on).as_millis();
        let steps: Vec<_> =
            lines.iter().filter_map(|l| Some((l.at, Step::parse(&l.text)?))).collect();
        let mut phases = Vec::new();
        if let Some((at, first)) = steps.first() {
            let kernel = *at - Duration::from_secs_f64(first.seconds);
            phases.push(("firmware and boot loader".to_owned(), ms(kernel)));
            phases.push(("kernel".to_owned(), ms(*at)));
            let init_start = ms(kernel);
            for (_, step) in &steps[1..] {
                phases.push((
                    format!("cvm-init {}", step.step),
                    init_start + (step.seconds * 1000.0) as u128,
                ));
            }
        }
        if let Some(at) = ready {
            phases.push(("NVFLARE ready".to_owned(), ms(at)));
        }
        Self { phases, steps: steps.into_iter().map(|(_, step)| step).collect() }
    }

    /// Milliseconds from `cvm-init`'s first line to its handoff.
    pub fn init_to_handoff(&self) -> Option<u128> {
        let handoff = self.steps.iter().find(|s| s.step == "handoff")?;
        Some(((handoff.seconds - self.steps.first()?.seconds) * 1000.0) as u128)
    }

    /// Milliseconds that the last line of `step` took since the line before it.
    pub fn duration(&self, step: &str) -> Option<u128> {
        let at = self.steps.iter().rposition(|s| s.step == step)?;
        let before = self.steps.get(at.checked_sub(1)?)?;
        Some(((self.steps[at].seconds - before.seconds) * 1000.0) as u128)
    }

    /// What the step said.
    pub fn text(&self, step: &str) -> Option<&str> {
        self.steps.iter().find(|s| s.step == step).map(|s| s.text.as_str())
    }
}

impl fmt::Display for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut before = 0;
        let mut text = String::new();
        for (phase, end) in &self.phases {
            writeln!(text, "  {end:>7} ms  (+{:>6})  {phase}", end.saturating_sub(before))?;
            before = *end;
        }
        f.write_str(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_follow_from_the_console() {
        let power_on = Instant::now();
        let at = |ms| power_on + Duration::from_millis(ms);
        let lines = [
            Line { at: at(9000), text: "BdsDxe: starting Boot0001".into() },
            Line { at: at(14_000), text: "cvm-init[   3.000] start: cvm-init 0.1.0".into() },
            Line { at: at(20_000), text: "cvm-init[   9.000] handoff: p3 by model-owner".into() },
        ];
        let timeline = Timeline::new(power_on, &lines, Some(at(40_000)));
        let ends: Vec<_> = timeline.phases.iter().map(|(_, end)| *end).collect();
        assert_eq!(ends, [11_000, 14_000, 20_000, 40_000]);
        assert_eq!(timeline.init_to_handoff(), Some(6000));
        assert_eq!(timeline.text("handoff"), Some("p3 by model-owner"));
        assert_eq!(Step::parse("[    3.1] kernel: no"), None);
    }
}
