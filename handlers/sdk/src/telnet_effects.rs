//! Effects of a turn on a telnet session: prompts, options, subnegotiations.

use crate::telnet::{self, Verb};
use crate::turn::Turn;

impl<S> Turn<'_, S> {
    /// Sends a text behind which the peer is to answer. On a telnet session EOR stands behind it
    /// where that was negotiated, else GA unless the peer wants none. Over WebSocket it is a text;
    /// elsewhere it is sent as [`Turn::send`] does.
    ///
    /// ```
    /// use greenroom_handler::{Result, Turn, telnet};
    ///
    /// fn ask_password(turn: &mut Turn) {
    ///     turn.prompt("Password: ");
    ///     turn.hide_input(true);
    /// }
    ///
    /// /// The same for an option that has no function of its own.
    /// fn answered(turn: &mut Turn) {
    ///     turn.telnet_wont(telnet::ECHO);
    ///     turn.telnet_dont(telnet::WINDOW_SIZE);
    ///     turn.send("\n");
    /// }
    ///
    /// fn begin(turn: &mut Turn) {
    ///     turn.telnet_do(telnet::WINDOW_SIZE);
    ///     turn.telnet_will(telnet::GMCP);
    ///     turn.subnegotiate(telnet::GMCP, br#"Core.Hello {"client": "greenroom"}"#);
    /// }
    /// ```
    pub fn prompt(&mut self, text: impl AsRef<[u8]>) {
        let status = self.host.prompt(text.as_ref());
        self.note_refusal("a prompt", status);
    }

    /// Asks the peer of a telnet session not to show what is typed, for a password; or to show it
    /// again. Nothing happens on other sessions.
    ///
    /// The end of a hidden line isn't shown either, so the next answer begins with an empty line.
    pub fn hide_input(&mut self, hidden: bool) {
        match hidden {
            true => self.telnet_will(telnet::ECHO),
            false => self.telnet_wont(telnet::ECHO),
        }
    }

    /// Asks the peer of a telnet session to turn an option on at its side, and agrees to its offers
    /// of it from here on. The outcome comes as [`crate::Action::Negotiated`]. Asking twice sends
    /// nothing.
    ///
    /// This and the other methods of telnet do nothing on a session that does not speak it. A
    /// session has at most 29 options that were asked for.
    pub fn telnet_do(&mut self, option: u8) {
        self.negotiate(Verb::Do, option);
    }

    /// Asks the peer of a telnet session to leave an option off at its side, and refuses its
    /// offers.
    pub fn telnet_dont(&mut self, option: u8) {
        self.negotiate(Verb::Dont, option);
    }

    /// Offers the peer of a telnet session an option at the host's side, and agrees when it asks.
    pub fn telnet_will(&mut self, option: u8) {
        self.negotiate(Verb::Will, option);
    }

    /// Leaves an option off at the host's side, and refuses when the peer asks.
    pub fn telnet_wont(&mut self, option: u8) {
        self.negotiate(Verb::Wont, option);
    }

    fn negotiate(&mut self, verb: Verb, option: u8) {
        let status = self.host.negotiate(verb as u8, option);
        self.note_refusal("a telnet option", status);
    }

    /// Sends a subnegotiation to the peer of a telnet session. The byte 255 is doubled on the way.
    pub fn subnegotiate(&mut self, option: u8, bytes: impl AsRef<[u8]>) {
        let status = self.host.subnegotiate(option, bytes.as_ref());
        self.note_refusal("a subnegotiation", status);
    }
}
