//! Every adapter against every other: what is said here of one holds for all, and no peer can tell which it talks to.

mod adapters {
    pub(crate) mod frames;
    pub(crate) mod hostile;
    pub(crate) mod lifetime;
    pub(crate) mod moving;
    pub(crate) mod nodes;
    pub(crate) mod path;
    pub(crate) mod side;
    pub(crate) mod stage;
}

use adapters::{hostile, path, side, stage};

/// Runs tests of two sides over every pair of adapters, the dialling one first; those behind `plain` without a runtime.
macro_rules! over_pairs {
    (plain $($test:ident),* $(,)?) => {
        crate::over_pairs! { @ #[test] [] [] $($test)* }
    };
    ($($test:ident),* $(,)?) => {
        crate::over_pairs! { @ #[tokio::test(flavor = "multi_thread")] [async] [.await] $($test)* }
    };
    (@ #[$attribute:meta] $async:tt $await:tt $($test:ident)*) => {
        crate::over_pairs! { @@ iroh_iroh Iroh Iroh #[$attribute] $async $await $($test)* }
        crate::over_pairs! { @@ udp_udp Udp Udp #[$attribute] $async $await $($test)* }
        crate::over_pairs! { @@ iroh_udp Iroh Udp #[$attribute] $async $await $($test)* }
        crate::over_pairs! { @@ udp_iroh Udp Iroh #[$attribute] $async $await $($test)* }
    };
    (@@ $pair:ident $dialler:ident $listener:ident #[$attribute:meta] $async:tt $await:tt $($test:ident)*) => {
        mod $pair {
            $( crate::over_pairs! { @@@ $test $dialler $listener #[$attribute] $async $await } )*
        }
    };
    (@@@ $test:ident $dialler:ident $listener:ident #[$attribute:meta] [$($async:tt)?] [$($await:tt)*]) => {
        #[$attribute]
        $($async)? fn $test() {
            super::$test(super::Kind::$dialler, super::Kind::$listener)$($await)*;
        }
    };
}

/// Plays scenarios with so many nodes over every pair of adapters, and in the simulator.
macro_rules! over_stages {
    ($($test:ident: $cast:expr),* $(,)?) => {
        $( mod $test {
            use crate::side::Kind::{Iroh, Udp};
            use crate::stage::Cast::*;
            use crate::stage::{Simulated, Sockets};

            #[test]
            fn iroh_iroh() {
                super::$test(&mut Sockets::new($cast, Iroh, Iroh));
            }

            #[test]
            fn udp_udp() {
                super::$test(&mut Sockets::new($cast, Udp, Udp));
            }

            #[test]
            fn iroh_udp() {
                super::$test(&mut Sockets::new($cast, Iroh, Udp));
            }

            #[test]
            fn udp_iroh() {
                super::$test(&mut Sockets::new($cast, Udp, Iroh));
            }

            #[test]
            fn simulated() {
                super::$test(&mut Simulated::new($cast));
            }
        } )*
    };
}

/// Runs tests of one side over every adapter.
macro_rules! over_kinds {
    ($($test:ident),* $(,)?) => {
        crate::over_kinds! { @ on_iroh Iroh $($test)* }
        crate::over_kinds! { @ on_udp Udp $($test)* }
    };
    (@ $name:ident $kind:ident $($test:ident)*) => {
        mod $name {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $test() {
                    super::$test(super::Kind::$kind).await;
                }
            )*
        }
    };
}

pub(crate) use {over_kinds, over_pairs, over_stages};
