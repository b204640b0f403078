//! What mends a link that is refused, by the reason that `status connections` shows.

use weave_router::HandshakeFailure as Failure;

const OTHER_PASSWORD: &str = "start both with one password: correct the file of --password-file and `weave reload`, \
                              or `weave stop --keep-dns` and `weave launch` with it";

/// What the operator can do; `None` where the reason says it, or nobody knows.
pub(super) fn of_link(reason: &str) -> Option<&'static str> {
    let exactly = [
        (Failure::WrongPassword, OTHER_PASSWORD),
        (Failure::Refused, OTHER_PASSWORD),
        (
            Failure::ClearNetwork,
            "`weave stop` the peer and launch it with the password of this network; or this host with --clear",
        ),
        (
            Failure::EncryptedNetwork,
            "`weave stop --keep-dns` and `weave launch` with the password of that network (WEAVE_PASSWORD or --password-file)",
        ),
        (Failure::Ourselves, "`weave forget` it: it is an address of this host"),
        (Failure::SameIdentity, "`weave reset` one of the two and launch it again"),
    ];
    let begins = [
        ("same name:", "`weave stop` one of the two and launch it without --name, or with another"),
        ("incompatible version", "install one version on both, the newer one"),
    ];
    let exactly = exactly.into_iter().find(|(failure, _)| failure.to_string() == reason);
    exactly.map(|(_, remedy)| remedy).or_else(|| {
        begins.into_iter().find(|(beginning, _)| reason.starts_with(beginning)).map(|(_, remedy)| remedy)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_that_an_operator_can_mend_have_a_remedy() {
        let name = "02:00:00:00:00:01".parse().unwrap_or_else(|error| panic!("{error}"));
        for failure in [
            Failure::WrongPassword,
            Failure::Refused,
            Failure::ClearNetwork,
            Failure::EncryptedNetwork,
            Failure::Ourselves,
            Failure::SameIdentity,
            Failure::SameName(name),
        ] {
            let remedy = of_link(&failure.to_string());
            assert!(remedy.is_some_and(|remedy| remedy.contains("weave ")), "{failure}: {remedy:?}");
        }
        assert_eq!(of_link("connection refused"), None);
        assert_eq!(of_link(""), None);
    }
}
