//! What is run, with which words, variables and directory.

use super::*;

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn commands_and_entrypoints_combine_as_dockers() {
    for (command, given, entrypoint, cmd, wanted) in [
        ("", "", "entry", "cmd arg", Some("entry cmd arg")),
        ("", "x", "entry", "cmd", Some("entry x")),
        ("run", "", "entry", "cmd", Some("run")),
        ("run", "x y", "entry", "cmd", Some("run x y")),
        ("", "", "", "cmd", Some("cmd")),
        ("", "x", "", "cmd", Some("x")),
        ("", "", "", "", None),
    ] {
        let config =
            v1::ContainerConfig { command: words(command), args: words(given), ..Default::default() };
        let image =
            ProcessConfig { entrypoint: words(entrypoint), cmd: words(cmd), ..ProcessConfig::default() };
        assert_eq!(args(&config, &image).ok(), wanted.map(words), "{command} {given} {entrypoint} {cmd}");
    }
    let image = ProcessConfig { entrypoint: vec![String::new()], cmd: words("sh"), ..Default::default() };
    assert_eq!(args(&v1::ContainerConfig::default(), &image).unwrap(), ["sh"]);
    let zero = v1::ContainerConfig { command: vec!["a\0b".into()], ..Default::default() };
    assert!(args(&zero, &image).is_err());
}

#[test]
fn later_variables_replace_earlier_ones_in_their_place() {
    let image = ProcessConfig { env: words("A=1 PATH=/image B=2 = =x C"), ..ProcessConfig::default() };
    let variable = |key: &str, value: &[u8]| v1::KeyValue { key: key.into(), value: value.to_vec() };
    let mut config = v1::ContainerConfig { tty: true, ..Default::default() };
    config.envs = vec![variable("A", b"9"), variable("D", b"x=y")];
    let found = env(&words("BASE=0"), "host", &config, &image).unwrap();
    assert_eq!(found, words("BASE=0 PATH=/image TERM=xterm HOSTNAME=host A=9 B=2 D=x=y"));
    for (key, value) in [("", &b"x"[..]), ("A=B", b"x"), ("A", b"\xff"), ("A", b"a\0b"), ("A\0", b"")] {
        config.envs = vec![variable(key, value)];
        assert!(env(&[], "", &config, &ProcessConfig::default()).is_err(), "{key:?} {value:?}");
    }
    let zero = ProcessConfig { env: vec!["A=\0".into()], ..ProcessConfig::default() };
    assert!(image_env(&zero).is_err());
}

#[test]
fn a_directory_counts_from_the_root() {
    let image = |dir: &str| ProcessConfig { working_dir: dir.into(), ..ProcessConfig::default() };
    for (wanted, of_image, found) in
        [("", "", "/"), ("", "/srv", "/srv"), ("/a", "/srv", "/a"), ("a/b", "", "/a/b"), ("", "srv", "/srv")]
    {
        assert_eq!(cwd(wanted, &image(of_image)).unwrap(), found);
    }
    assert!(cwd("/a\0", &image("")).is_err());
}
