//! Checks of what becomes argv, environment or folder of a process: what the kernel would refuse or cut off is named here.

use std::{collections::BTreeMap, path::Path};

use crate::launch::Misfit;

/// Bytes of one argument or variable; the kernel's `MAX_ARG_STRLEN` with the closing NUL.
pub(crate) const ARGUMENT_BYTES_MAX: usize = 128 * 1024 - 1;

/// Names that only the runner sets.
const RESERVED_PREFIX: &str = "MILLRACE_";

/// Checks program and arguments.
pub(crate) fn argv(path: &str, argv: &[String], misfits: &mut Vec<Misfit>) {
    if argv.first().is_none_or(String::is_empty) {
        misfits.push(Misfit::new(path, "names no program"));
    }
    for (index, argument) in argv.iter().enumerate() {
        text(&format!("{path}[{index}]"), argument, misfits);
    }
}

/// Checks names and values of variables.
pub(crate) fn env(path: &str, env: &BTreeMap<String, String>, misfits: &mut Vec<Misfit>) {
    for (name, value) in env {
        let path = format!("{path}.{name}");
        if !is_variable(name) {
            misfits.push(Misfit::new(
                &path,
                "a variable's name is made of A-Z, a-z, 0-9 and '_' and does not start with a digit",
            ));
        } else if name.starts_with(RESERVED_PREFIX) {
            misfits.push(Misfit::new(&path, "names that start with MILLRACE_ are set by Millrace"));
        }
        text(&path, value, misfits);
    }
}

/// Checks a folder to run in.
pub(crate) fn folder(path: &str, folder: &Path, misfits: &mut Vec<Misfit>) {
    if !folder.is_absolute() {
        misfits.push(Misfit::new(path, format!("{} is not an absolute path", folder.display())));
    }
    if folder.as_os_str().as_encoded_bytes().contains(&0) {
        misfits.push(Misfit::new(path, "contains a NUL character"));
    }
}

/// Checks exit codes; none can mean two things.
pub(crate) fn exit_codes(success: &[i32], skip: &[i32], misfits: &mut Vec<Misfit>) {
    for (path, codes) in [("success_exit_codes", success), ("skip_exit_codes", skip)] {
        for code in codes.iter().filter(|code| !(0..=255).contains(*code)) {
            misfits.push(Misfit::new(path, format!("{code} is not an exit code: they go from 0 to 255")));
        }
    }
    for code in skip.iter().filter(|code| success.contains(code)) {
        misfits.push(Misfit::new(
            "skip_exit_codes",
            format!("{code} also stands for success, say which of both it means"),
        ));
    }
}

/// Checks one argument or value.
fn text(path: &str, text: &str, misfits: &mut Vec<Misfit>) {
    if text.contains('\0') {
        misfits.push(Misfit::new(path, "contains a NUL character"));
    }
    if text.len() > ARGUMENT_BYTES_MAX {
        let problem = format!(
            "has {} bytes, and the system takes {ARGUMENT_BYTES_MAX}: hand it on in a file or `stdin`",
            text.len()
        );
        misfits.push(Misfit::new(path, problem));
    }
}

fn is_variable(name: &str) -> bool {
    !name.starts_with(|first: char| first.is_ascii_digit())
        && !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_variables_are_those_of_a_shell() {
        for name in ["A", "_a1", "http_proxy"] {
            assert!(is_variable(name), "{name}");
        }
        for name in ["", "1A", "A-B", "A=B", "Ä", "A B", "A\0"] {
            assert!(!is_variable(name), "{name}");
        }
    }

    #[test]
    fn an_exit_code_means_one_thing() {
        let mut misfits = Vec::new();
        exit_codes(&[0, 256], &[0, -1], &mut misfits);
        let paths: Vec<_> = misfits.iter().map(|misfit| misfit.path.as_str()).collect();
        assert_eq!(paths, ["success_exit_codes", "skip_exit_codes", "skip_exit_codes"]);
    }

    #[test]
    fn what_the_kernel_would_refuse_is_named_by_its_place() {
        let mut misfits = Vec::new();
        argv("command", &["a".into(), "b\0".into(), "c".repeat(ARGUMENT_BYTES_MAX + 1)], &mut misfits);
        argv("other", &[String::new()], &mut misfits);
        folder("cwd", Path::new("here"), &mut misfits);
        let paths: Vec<_> = misfits.iter().map(|misfit| misfit.path.as_str()).collect();
        assert_eq!(paths, ["command[1]", "command[2]", "other", "cwd"]);
    }
}
