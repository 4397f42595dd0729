"""How runs of online policies are told, one view per kind of game; `rivage.core.games` finds them."""
