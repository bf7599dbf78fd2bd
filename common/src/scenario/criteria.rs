//! Which criteria hold for which phase.
//!
//! Used by the check, which refuses a criterion that no phase can answer, and by the analysis, which judges them. Law:
//! each criterion of an accepted scenario is judged by at least one phase.

use vst_tuning::constraint::Constraint;
use vst_tuning::figure::Figure;

use super::{Load, PhaseSpec, Scenario, Step};

impl Step {
    /// Whether the report gives this figure of a phase with this step.
    #[must_use]
    pub fn answers(&self, figure: Figure) -> bool {
        match figure {
            Figure::Qps | Figure::P50 | Figure::P95 | Figure::P99 | Figure::ErrorRate => {
                self.load().is_some()
            }
            Figure::AchievedShare => matches!(self.load(), Some(Load::Open { .. })),
            Figure::Recall => matches!(self, Self::Query(_) | Self::Mixed(_)),
            Figure::Memory | Figure::BytesPerVector => matches!(self, Self::Checkpoint),
            Figure::P999 | Figure::CpuPerQuery => false,
        }
    }

    /// Whether the criteria of the whole scenario are about it: what brings the population into its shape is not what
    /// is asked about.
    fn is_asked_about(&self) -> bool {
        matches!(self, Self::Query(_) | Self::Mixed(_) | Self::Kv(_) | Self::Checkpoint)
    }
}

/// Whether a criterion of the whole scenario is about a phase.
#[must_use]
pub fn is_about(criterion: &Constraint, phase: &PhaseSpec) -> bool {
    phase.step.is_asked_about() && phase.step.answers(criterion.figure())
}

/// What must hold of a phase: its own criteria, and those of the scenario whose figure it does not bound itself.
#[must_use]
pub fn of_phase(scenario: &Scenario, phase: &PhaseSpec) -> Vec<Constraint> {
    let own = |criterion: &Constraint| {
        let same = |o: &Constraint| o.figure() == criterion.figure() && o.side() == criterion.side();
        phase.criteria.iter().any(same)
    };
    let general = scenario.criteria.iter().filter(|c| is_about(c, phase) && !own(c));
    phase.criteria.iter().chain(general).copied().collect()
}
