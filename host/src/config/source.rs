//! Sources of the configuration: the file, and the command line on top of it.
//!
//! A source can be read again at any time, with the same precedence: command line, then file,
//! then the service's own default. So a file that changes an address which `--listen` names
//! changes nothing.

use crate::config::Config;
use crate::logs::levels::LogLevel;
use greenroom_state::endpoint::Endpoint;
use std::path::PathBuf;

/// Sources of a host's configuration. The keeper holds them for its whole life; a change of the
/// command line needs a restart.
#[derive(Debug, Clone, Default)]
pub struct ConfigSource {
    /// Path of the file; `None`: all values have their defaults.
    pub path: Option<PathBuf>,
    /// The file need not be there: all values have their defaults then.
    pub may_lack: bool,
    /// Addresses from the command line, which replace the file's.
    pub listen: Vec<(String, Endpoint)>,
    /// `--no-watch` on the command line, which overrides `watch`.
    pub no_watch: bool,
    /// `--log` on the command line, which replaces `log.level`.
    pub log: Option<LogLevel>,
}

impl ConfigSource {
    /// Reads file and command line. Blocks for the disk, so the keeper calls it on a thread of
    /// its own once it serves. The error names the file, and the line where there is one.
    pub fn read(&self) -> Result<Config, String> {
        let mut config = match &self.path {
            Some(path) if !self.may_lack || !matches!(path.try_exists(), Ok(false)) => Config::read(path)?,
            _ => Config::default(),
        };
        config.override_listen(&self.listen);
        // The command line can only switch the watch off.
        config.watch &= !self.no_watch;
        config.log.level = self.log.or(config.log.level);
        config.check_tls()?;
        config.admin.find_members()?;
        Ok(config)
    }
}

/// Parses the argument of `--listen`. A name that no service has is found out later, by a
/// warning.
pub fn parse_listen(text: &str) -> Result<(String, Endpoint), String> {
    let (service, addr) = text.split_once('=').ok_or("it is written SERVICE=ADDRESS:PORT")?;
    let addr = addr.parse().map_err(|e| {
        format!(
            "{e}; an endpoint is written 127.0.0.1:4000, telnet://127.0.0.1:4023 or line+unix:/run/chat.sock"
        )
    })?;
    Ok((service.to_owned(), addr))
}

impl Config {
    /// Replaces the addresses of each service that `--listen SERVICE=ADDR` names. Several
    /// addresses of one service add up.
    pub fn override_listen(&mut self, listen: &[(String, Endpoint)]) {
        // All lists are emptied first: the second address of a service must not delete the
        // first.
        for (service, _) in listen {
            self.service.entry(service.clone()).or_default().listen.clear();
        }
        for (service, addr) in listen {
            self.service.entry(service.clone()).or_default().listen.push(addr.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::read;
    use greenroom_core::framing::Framing;
    use greenroom_core::service::offer::{EndpointOffer, Offer};

    #[test]
    fn the_command_line_comes_before_the_file_and_the_file_before_the_service() {
        let mut c =
            read("[service.chat]\nlisten = [\"127.0.0.1:1\", \"tcp://[::1]:1\"]\nsettings = {a = 1}\n")
                .unwrap();
        let offer = |name: &str, port: u16, dials: bool| {
            let mut offer = Offer { dials, ..Offer::new(name, Framing::Raw { bytes_max: 9 }) };
            offer.endpoints[0].port = port;
            offer
        };
        let texts = |c: &Config, offer: &Offer| {
            c.endpoints(offer).map(|all| all.iter().map(Endpoint::to_string).collect::<Vec<_>>().join(" "))
        };
        let (chat, mut echo) = (offer("chat", 4000, false), offer("echo", 4001, false));
        echo.endpoints.push(EndpointOffer { framing: Framing::Telnet { bytes_max: 9 }, port: 4023 });
        assert_eq!(texts(&c, &chat).unwrap(), "tcp://127.0.0.1:1 tcp://[::1]:1");
        assert_eq!(texts(&c, &echo).unwrap(), "tcp://127.0.0.1:4001 telnet://127.0.0.1:4023");
        c.override_listen(&[parse_listen("chat=line://127.0.0.1:2").unwrap()]);
        assert_eq!(texts(&c, &chat).unwrap(), "line://127.0.0.1:2");
        // Over UDP a service has no sessions, unless its handler asks for them.
        let c =
            read("[service.chat]\nlisten = [\"udp://127.0.0.1:1\", \"peer+udp://127.0.0.1:2\"]\n").unwrap();
        assert_eq!(texts(&c, &chat).unwrap(), "datagram+udp://127.0.0.1:1 peer+udp://127.0.0.1:2");
        echo.endpoints.push(EndpointOffer { framing: Framing::Peer { bytes_max: 9 }, port: 4001 });
        let own = texts(&Config::default(), &echo).unwrap();
        assert_eq!(own, "tcp://127.0.0.1:4001 telnet://127.0.0.1:4023 peer+udp://127.0.0.1:4001");
        let c = read("[service.echo]\nlisten = [\"udp://127.0.0.1:1\"]\n").unwrap();
        assert_eq!(texts(&c, &echo).unwrap(), "peer+udp://127.0.0.1:1");
        assert!(texts(&c, &offer("odd", 0, false)).unwrap_err().contains("--listen odd="));
        assert_eq!(texts(&c, &offer("far", 0, true)), Ok(String::new()));
        for (listen, says) in [
            (
                "gopher://127.0.0.1:1",
                "gopher://127.0.0.1:1: over a stream it can be had as line, raw, telnet",
            ),
            ("peer://127.0.0.1:1", "over a stream it can be had as line, raw, telnet"),
            ("line+udp://127.0.0.1:1", "over UDP it can be had as datagram, peer"),
        ] {
            let c = read(&format!("[service.chat]\nlisten = [\"{listen}\"]\n")).unwrap();
            let said = texts(&c, &chat).unwrap_err();
            assert!(said.contains(says), "{said}");
        }
        assert!(parse_listen("chat").is_err() && parse_listen("chat=x").is_err());
    }
}
