//! Options of `greenroom reload` that begin a canary.

use crate::cli::output::CommandFailure;
use crate::cli::state::field;
use crate::protocol::canary::CanaryWish;
use clap::Args;

/// Batches of which one is run with both builds, unless the command says so.
const COMPARE_EVERY: u32 = 16;
/// Bytes of chosen sessions and fields that a command carries.
const CHOICE_BYTES_MAX: usize = 48 << 10;

/// Options of a reload that a canary does not go with. `requires` says nothing beside an option
/// that excludes what is required.
const APART: [&str; 5] = ["all", "config", "dry_run", "wait", "against"];

// Doc comments of the fields are the help text of the command line.
#[derive(Args)]
pub(super) struct CanaryArgs {
    /// Let the candidate run only this share of new sessions, like 5%
    #[arg(long, value_name = "SHARE", requires = "service", conflicts_with_all = APART)]
    canary: Option<String>,
    /// Let these sessions run the candidate
    #[arg(long, value_name = "ID,...", value_delimiter = ',', requires = "service", conflicts_with_all = APART)]
    sessions: Vec<u64>,
    /// Let the sessions run the candidate whose state has this value now; each given value counts
    #[arg(long = "where", value_name = "FIELD=VALUE", requires = "service", conflicts_with_all = APART)]
    fields: Vec<String>,
    /// Promote the candidate after this time, like 10m
    #[arg(long, value_name = "TIME")]
    promote_after: Option<humantime::Duration>,
    /// Take the candidate back beyond so many faults that the build before does not have
    #[arg(long, value_name = "N")]
    faults_max: Option<u64>,
    /// Run one batch of turns in N with both builds, and compare the answers; 0: none [default: 16]
    #[arg(long, value_name = "N")]
    compare: Option<u32>,
}

impl CanaryArgs {
    /// The canary that is asked for; `None`: a reload of all sessions is.
    pub(super) fn wish(self) -> Result<Option<CanaryWish>, CommandFailure> {
        let CanaryArgs { canary, sessions, fields, promote_after, faults_max, compare } = self;
        if canary.is_none() && sessions.is_empty() && fields.is_empty() {
            return match promote_after.is_some() || faults_max.is_some() || compare.is_some() {
                true => Err(CommandFailure::Usage(
                    "--promote-after, --faults-max and --compare are about a canary; say which sessions run it: \
                     --canary 5%, --sessions ID or --where FIELD=VALUE"
                        .into(),
                )),
                false => Ok(None),
            };
        }
        let bytes = sessions.len() * 8 + fields.iter().map(String::len).sum::<usize>();
        if bytes > CHOICE_BYTES_MAX {
            return Err(CommandFailure::Usage(
                "that is more than a command carries; choose by --where".into(),
            ));
        }
        Ok(Some(CanaryWish {
            share: canary.map_or(Ok(0), |text| share(&text))?,
            sessions,
            fields: fields.iter().map(|f| field(f)).collect::<Result<_, _>>()?,
            compare_every: compare.unwrap_or(COMPARE_EVERY),
            promote_after_ms: promote_after.map(|d| d.as_millis() as u64),
            faults_max,
        }))
    }
}

/// Reads a share in percent, in ten-thousandths.
fn share(text: &str) -> Result<u32, CommandFailure> {
    let number = text.trim().trim_end_matches('%').trim_end().parse::<f64>();
    let share = number.ok().filter(|n| (0.0..=100.0).contains(n)).map(|n| (n * 100.0).round() as u32);
    share.ok_or_else(|| {
        CommandFailure::Usage(format!("--canary {text:?}: a share is from 0% to 100%, like 5% or 0.5%"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_read_in_ten_thousandths() {
        let read = |text| share(text).map_err(CommandFailure::text);
        assert_eq!((read("5%"), read("0.5 %"), read("100")), (Ok(500), Ok(50), Ok(10_000)));
        for bad in ["", "%", "101%", "-1", "NaN", "five"] {
            assert!(read(bad).is_err_and(|e| e.contains("0% to 100%")), "{bad}");
        }
    }
}
