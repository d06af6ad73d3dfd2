//! How an exec or attach ended, as the client is told on its error stream.

use serde_json::json;

/// How an exec or attach ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The command ended with this status.
    Exited(u32),
    /// It could not be run, or not be followed to its end.
    Failed(String),
}

impl Outcome {
    /// The bytes for the error stream: a `Status` of Kubernetes in JSON since v4, before it a text, and none for success.
    pub fn encode(&self, json_status: bool) -> Option<Vec<u8>> {
        if !json_status {
            return self.text().map(String::into_bytes);
        }
        let status = match self {
            Self::Exited(0) => json!({ "status": "Success" }),
            Self::Exited(code) => json!({
                "status": "Failure",
                "message": self.text(),
                "reason": "NonZeroExitCode",
                "details": { "causes": [{ "reason": "ExitCode", "message": code.to_string() }] },
            }),
            Self::Failed(_) => json!({
                "status": "Failure",
                "message": self.text(),
                "reason": "InternalError",
                "code": 500,
            }),
        };
        Some(status.to_string().into_bytes())
    }

    fn text(&self) -> Option<String> {
        match self {
            Self::Exited(0) => None,
            Self::Exited(code) => Some(format!(
                "command terminated with non-zero exit code: error executing command, exit code {code}"
            )),
            Self::Failed(error) => {
                Some(format!("Internal error occurred: error executing command in container: {error}"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(outcome: Outcome, json: &str, text: Option<&str>) {
        assert_eq!(String::from_utf8(outcome.encode(true).unwrap()).unwrap(), json);
        assert_eq!(outcome.encode(false).map(|bytes| String::from_utf8(bytes).unwrap()).as_deref(), text);
    }

    #[test]
    fn outcomes_are_told_in_kubernetes_words() {
        check(Outcome::Exited(0), r#"{"status":"Success"}"#, None);
        check(
            Outcome::Exited(3),
            concat!(
                r#"{"status":"Failure","message":"command terminated with non-zero exit code: error executing command, "#,
                r#"exit code 3","reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"3"}]}}"#
            ),
            Some("command terminated with non-zero exit code: error executing command, exit code 3"),
        );
        check(
            Outcome::Failed("x".into()),
            concat!(
                r#"{"status":"Failure","message":"Internal error occurred: error executing command in container: x","#,
                r#""reason":"InternalError","code":500}"#
            ),
            Some("Internal error occurred: error executing command in container: x"),
        );
    }
}
