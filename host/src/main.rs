//! The `greenroom` command. See [`greenroom::cli`].

fn main() -> std::process::ExitCode {
    greenroom::cli::run()
}
