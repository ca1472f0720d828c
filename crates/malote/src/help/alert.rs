//! Alerts: what `malote server alert` says of itself.
//!
//! Promises: sorted by the English text.
//! Never: holds words that other commands use as well.

pub(super) const TWINS: super::Twins = twins! {
    "ADDRESS"
    "ENDEREÇO";
    "ALERT"
    "ALERTA";
    "Address that it goes to"
    "Endereço para o qual ele vai";
    "Address that mails go to"
    "Endereço para o qual os e-mails vão";
    "Addresses and webhooks that are told"
    "Endereços e webhooks que são avisados";
    "Alert, by its id"
    "Alerta, pelo seu id";
    "Alerts of a tenant, the newest first"
    "Alertas de um tenant, do mais novo ao mais antigo";
    "End a silence"
    "Encerra um silêncio";
    "FROM"
    "REMETENTE";
    "From where on alerts are raised"
    "A partir de onde os alertas são criados";
    "Go back to the wider threshold or the default"
    "Volta ao limiar mais amplo ou ao padrão";
    "HOST"
    "SERVIDOR";
    "HOURS"
    "HORAS";
    "Have nothing told of an alert for a while, but its end"
    "Faz com que nada seja avisado de um alerta por um tempo, exceto o seu fim";
    "Hours from now"
    "Horas a partir de agora";
    "How mails are protected on their way there: starttls, tls or none"
    "Como os e-mails são protegidos no caminho até lá: starttls, tls ou none";
    "Its port; left out: 587 with starttls, 465 with tls, 25 with none"
    "A porta dele; se omitida: 587 com starttls, 465 com tls, 25 com none";
    "Language of the mail: en or pt"
    "Idioma do e-mail: en ou pt";
    "Language of the mails: en or pt"
    "Idioma dos e-mails: en ou pt";
    "Mail alerts to an address; one that is there already is replaced"
    "Envia alertas por e-mail a um endereço; um que já existe é substituído";
    "Mail no more alerts to an address; what waits for it is not sent"
    "Não envia mais alertas a um endereço; o que aguarda por ele não é enviado";
    "Minutes, batches or rows, by the rule"
    "Minutos, pacotes ou linhas, conforme a regra";
    "Name or address of the mail server"
    "Nome ou endereço do servidor de e-mail";
    "Note that it was seen: it is not told again until it ends"
    "Anota que foi visto: não é avisado de novo até terminar";
    "One alert"
    "Um alerta";
    "Only those that are open, resolved, or all"
    "Só os que estão open (abertos), resolved (resolvidos), ou all (todos)";
    "PORT"
    "PORTA";
    "RULE"
    "REGRA";
    "Rule: agent-dead, batch-incomplete, batch-stalled, differences, freshness, not-verified, quarantine, staging-behind, table-parked"
    "Regra: agent-dead, batch-incomplete, batch-stalled, differences, freshness, not-verified, quarantine, staging-behind, table-parked";
    "Send one mail now, to see whether it arrives"
    "Envia um e-mail agora, para ver se ele chega";
    "Set a threshold; 0 switches the rule off there"
    "Define um limiar; 0 desliga a regra ali";
    "Set the mail server, or replace it; a password is read from standard input and kept sealed"
    "Define ou substitui o servidor de e-mail; uma senha é lida da entrada padrão e guardada selada";
    "Take it away; mails wait from then on"
    "Remove-o; a partir daí os e-mails aguardam";
    "The mail server that mails go through"
    "O servidor pelo qual os e-mails passam";
    "The mail server, without its password"
    "O servidor de e-mail, sem a senha";
    "The one environment it holds for, by id or name; left out: every one of the tenant"
    "O único ambiente em que vale, por id ou nome; se omitido, todos os do tenant";
    "The one environment whose alerts go there, by id or name; left out: every one of the tenant"
    "O único ambiente cujos alertas vão para lá, por id ou nome; se omitido, todos os do tenant";
    "The one table it holds for; left out: every table"
    "A única tabela em que vale; se omitida, todas as tabelas";
    "Those of the server itself, such as its disk"
    "Os do próprio servidor, como o disco dele";
    "Thresholds that are not the defaults"
    "Limiares que não são os padrões";
    "USER"
    "USUÁRIO";
    "Until that time: 2027-01-31 or 2027-01-31T12:00:00Z"
    "Até esse momento: 2027-01-31 ou 2027-01-31T12:00:00Z";
    "VALUE"
    "VALOR";
    "What is wrong, and where people are told of it"
    "O que está errado, e onde as pessoas são avisadas disso";
    "Where alerts go beside the log and this list"
    "Para onde vão os alertas além do log e desta lista";
    "Whom mails come from: name@host, or \"Name <name@host>\""
    "De quem vêm os e-mails: nome@host, ou \"Nome <nome@host>\"";
    "Whom to log in as; left out: no login"
    "Com que usuário entrar; se omitido, sem login";
};
