//! Fleet: what `malote server fleet` says of itself.
//!
//! Promises: sorted by the English text.
//! Never: holds words that other commands use as well.

pub(super) const TWINS: super::Twins = twins! {
    "Agents of a tenant: who sends, who stands by, who is refused, who fell silent"
    "Agentes de um tenant: quem envia, quem está em espera, quem é recusado, quem ficou em silêncio";
    "Agents, their tables, and orders to them"
    "Agentes, as tabelas deles e ordens para eles";
    "Compare a table with what is staged of it"
    "Compara uma tabela com o que há dela na staging";
    "Compare a table with what is staged of it, and send again what differs"
    "Compara uma tabela com o que há dela na staging e envia de novo o que difere";
    "Every table"
    "Todas as tabelas";
    "First key of the range"
    "Primeira chave do intervalo";
    "Follow a paused table again; with --all, lift every pause"
    "Volta a acompanhar uma tabela pausada; com --all, desfaz todas as pausas";
    "For how long"
    "Por quanto tempo";
    "Have the agent write a detailed log for a while"
    "Faz o agente gravar um log detalhado por algum tempo";
    "How much it says; off ends it"
    "Quanto ele diz; off o encerra";
    "Key behind the range"
    "Chave logo depois do intervalo";
    "Leave a table alone until it is resumed"
    "Deixa uma tabela de lado até que seja retomada";
    "Load a table again, by the agent's own count of loads"
    "Carrega uma tabela de novo, pela contagem de cargas do próprio agente";
    "MINUTES"
    "MINUTOS";
    "ORDER"
    "ORDEM";
    "Only those in this state: BASE_LOAD, STREAMING, RELOAD, PAUSED, PARKED or UNKNOWN"
    "Só as que estão neste estado: BASE_LOAD, STREAMING, RELOAD, PAUSED, PARKED ou UNKNOWN";
    "Only those that are parked, degraded, or have rows in quarantine"
    "Só as paradas, as degradadas ou as que têm linhas em quarentena";
    "Only those that are waiting, sent, under-way, done, failed or withdrawn"
    "Só as que estão em waiting, sent, under-way, done, failed ou withdrawn";
    "Only those with this verb: RELOAD, PAUSE, RESUME, RETRY, VERIFY, REPAIR or LOG_LEVEL"
    "Só as que têm este verbo: RELOAD, PAUSE, RESUME, RETRY, VERIFY, REPAIR ou LOG_LEVEL";
    "Order the agent of a stream to do something; it does it once"
    "Ordena algo ao agente de um fluxo; ele o faz uma vez só";
    "Orders to the agents of a stream, the newest first"
    "Ordens aos agentes de um fluxo, da mais nova à mais antiga";
    "Tables of a stream as its agent reported them last"
    "Tabelas de um fluxo como o agente as relatou por último";
    "Take an order back that no agent has yet"
    "Retira uma ordem que nenhum agente tem ainda";
    "Tell whether it could be given, and give nothing"
    "Diz se poderia ser dada, e não dá nada";
    "The order's number, as the list shows it"
    "O número da ordem, como a lista o mostra";
    "Try again at once what is parked or in the agent's quarantine"
    "Tenta de novo já o que está parado ou na quarentena do agente";
    "VERB"
    "VERBO";
    "Why, for those who look at the agent's status"
    "Por quê, para quem olhar o status do agente";
};
