//! Main function of the `greenroom` command, which is in [`greenroom::cli`].

fn main() -> std::process::ExitCode {
    greenroom::cli::run()
}
