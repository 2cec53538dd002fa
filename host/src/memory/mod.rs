//! Memory files that outlive the worker.
//!
//! | file | holds | survives a death of the worker |
//! |---|---|---|
//! | [`records`] | all sessions and tables | up to the last commit |
//! | [`input`] | bytes that were read | those of the pass that was not committed |
//! | [`board`] | counters, and the turn that runs | all |
//!
//! [`board_layout`] has the words of the board, and [`reading`] reads them from outside.
//! [`board_figures`] has the figures that operators collect, [`figures_layout`] their words; times
//! are in a [`histogram`].
//! [`snapshot`] reads the records from outside. [`stage`] names the stages of a pass for the board.

pub mod board;
pub mod board_figures;
pub mod board_layout;
pub mod figures_layout;
pub mod histogram;
pub mod input;
pub mod reading;
pub mod records;
pub mod snapshot;
pub mod stage;
