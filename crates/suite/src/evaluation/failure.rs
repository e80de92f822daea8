//! Why rollouts fail.

use leyden_core::{FinishReason, Outcome, Rollout, SignalKind};
use leyden_train::rounds::CONTEXT_OVERFLOW;

use crate::benchmark::Benchmark;

/// Why a rollout failed: the first error that occurred.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Failure {
    /// The reward is missing.
    NoReward,
    MalformedCall,
    ToolError,
    TurnLimit,
    /// A response reached the token limit.
    CutOff,
    /// The conversation exceeded the context.
    ContextOverflow,
    NoAnswer,
    /// The final query is not SQL.
    Unparsable,
    /// The final query fails to execute.
    ExecutionError,
    /// The final query returns no rows.
    EmptyResult,
    /// The final query returns other rows than the reference.
    WrongRows,
    /// The answer is partly right.
    PartlyRight,
    WrongAnswer,
}

/// All failures, in the order of tables.
pub(super) const FAILURES: [Failure; 13] = [
    Failure::WrongAnswer,
    Failure::PartlyRight,
    Failure::WrongRows,
    Failure::EmptyResult,
    Failure::ExecutionError,
    Failure::Unparsable,
    Failure::NoAnswer,
    Failure::MalformedCall,
    Failure::ToolError,
    Failure::TurnLimit,
    Failure::CutOff,
    Failure::ContextOverflow,
    Failure::NoReward,
];

impl Failure {
    /// The failure of a rollout; `None` if it succeeded.
    pub fn of(benchmark: &dyn Benchmark, rollout: &Rollout) -> Option<Self> {
        match rollout.outcome {
            Outcome::Missing(_) => Some(Self::NoReward),
            Outcome::Reward(reward) if reward >= 1.0 => None,
            Outcome::Reward(_)
                if rollout.has_signal(&SignalKind::Other(CONTEXT_OVERFLOW.to_owned())) =>
            {
                Some(Self::ContextOverflow)
            }
            Outcome::Reward(reward) => Some(benchmark.failure(rollout, reward)),
        }
    }

    /// The first error by the rollout's signals; `answered` is whether the answer has the required
    /// form.
    pub fn usual(rollout: &Rollout, answered: bool) -> Self {
        let signalled = |kinds: &[SignalKind]| kinds.iter().any(|kind| rollout.has_signal(kind));
        if signalled(&[SignalKind::MalformedCall, SignalKind::UnknownTool]) {
            Self::MalformedCall
        } else if signalled(&[SignalKind::ToolError]) {
            Self::ToolError
        } else if signalled(&[SignalKind::TurnLimit]) {
            Self::TurnLimit
        } else if rollout.calls.iter().any(|call| call.finish == FinishReason::Length) {
            Self::CutOff
        } else if !answered {
            Self::NoAnswer
        } else {
            Self::WrongAnswer
        }
    }

    /// The name in tables and files.
    pub fn name(self) -> &'static str {
        match self {
            Self::NoReward => "no reward",
            Self::MalformedCall => "malformed call",
            Self::ToolError => "tool error",
            Self::TurnLimit => "turn limit",
            Self::CutOff => "cut off",
            Self::ContextOverflow => "context overflow",
            Self::NoAnswer => "no answer",
            Self::Unparsable => "does not parse",
            Self::ExecutionError => "execution error",
            Self::EmptyResult => "empty result",
            Self::WrongRows => "wrong rows",
            Self::PartlyRight => "partly right",
            Self::WrongAnswer => "wrong answer",
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use leyden_core::{Call, Signal};

    use super::*;
    use crate::calc::Calc;
    use crate::rag::Rag;
    use crate::sql::Sql;

    /// A rollout of one call, also used in the tests of summaries.
    pub fn rollout(reward: f64, answer: Option<&str>, signals: &[SignalKind]) -> Rollout {
        let signal = |kind: &SignalKind| Signal { kind: kind.clone(), call: 0, detail: "".into() };
        Rollout {
            id: 0,
            task_id: "t".to_owned(),
            group: 0,
            calls: vec![Call {
                agent_role: "solve".to_owned(),
                prompt_ids: vec![1],
                response_ids: vec![1, 2],
                logprobs: vec![0.0, 0.0],
                text: String::new(),
                finish: FinishReason::Stop,
                policy_version: 0,
                constrained: false,
            }],
            signals: signals.iter().map(signal).collect(),
            process_rewards: Vec::new(),
            answer: answer.map(str::to_owned),
            outcome: Outcome::Reward(reward),
        }
    }

    #[test]
    fn the_first_error_is_the_failure() {
        use SignalKind::{MalformedCall, ToolError, TurnLimit, UnknownTool};
        let answer = Some("### ANSWER: 2 ###");
        for (rollout, expected) in [
            (rollout(1.0, answer, &[ToolError]), None),
            (rollout(0.0, answer, &[]), Some(Failure::WrongAnswer)),
            (rollout(0.0, Some("about two"), &[]), Some(Failure::NoAnswer)),
            (rollout(0.0, None, &[TurnLimit]), Some(Failure::TurnLimit)),
            (rollout(0.0, None, &[TurnLimit, ToolError]), Some(Failure::ToolError)),
            (rollout(0.0, answer, &[ToolError, UnknownTool]), Some(Failure::MalformedCall)),
            (rollout(0.0, answer, &[MalformedCall]), Some(Failure::MalformedCall)),
        ] {
            assert_eq!(Failure::of(&Calc, &rollout), expected);
        }
        let mut cut = rollout(0.0, None, &[]);
        cut.calls[0].finish = FinishReason::Length;
        assert_eq!(Failure::of(&Calc, &cut), Some(Failure::CutOff));
        cut.outcome = Outcome::Missing("no engine".to_owned());
        assert_eq!(Failure::of(&Calc, &cut), Some(Failure::NoReward));
    }

    #[test]
    fn the_last_query_determines_the_failure() {
        let of = |kind: &SignalKind, call: usize, detail: &str| {
            let mut wrong = rollout(0.0, Some("select 1"), &[]);
            for role in [leyden_sql::REWRITE, leyden_sql::CHECK] {
                let call = Call { agent_role: role.to_owned(), ..wrong.calls[0].clone() };
                wrong.calls.push(call);
            }
            wrong.signals.push(Signal { kind: kind.clone(), call, detail: detail.into() });
            Failure::of(&Sql, &wrong)
        };
        let error = SignalKind::ToolError;
        assert_eq!(of(&error, 1, "syntax: near x"), Some(Failure::Unparsable));
        assert_eq!(of(&error, 1, "column: no such column"), Some(Failure::ExecutionError));
        assert_eq!(of(&SignalKind::EmptyResult, 1, "q"), Some(Failure::EmptyResult));
        // The error of the first query was fixed by the rewrite.
        assert_eq!(of(&error, 0, "syntax: near x"), Some(Failure::WrongRows));
        let none = rollout(0.0, None, &[]);
        assert_eq!(Failure::of(&Sql, &none), Some(Failure::NoAnswer));
    }

    #[test]
    fn an_answer_may_be_partly_right() {
        let of = |reward, answer| Failure::of(&Rag, &rollout(reward, answer, &[]));
        assert_eq!(of(0.5, Some("<answer>New York</answer>")), Some(Failure::PartlyRight));
        assert_eq!(of(0.0, Some("<answer>Rome</answer>")), Some(Failure::WrongAnswer));
        assert_eq!(of(0.0, Some("Rome")), Some(Failure::NoAnswer));
    }
}
