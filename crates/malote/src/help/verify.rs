//! Verify: what `malote verify` says of itself.
//!
//! Promises: sorted by the English text.
//! Never: holds words that other commands use as well.

pub(super) const TWINS: super::Twins = twins! {
    "Compare tables of the ERP with what is staged of them, and repair what differs"
    "Compara tabelas do ERP com o que está na staging e repara o que difere";
    "Exit code 0: equal; 3: differences remain; 1: a table could not be verified."
    "Código de saída 0: igual; 3: restam diferenças; 1: uma tabela não pôde ser verificada.";
    "First key of the part of one table that is compared: once per key column"
    "Primeira chave da parte de uma tabela que é comparada: uma vez por coluna da chave";
    "Key behind the part: once per key column; keys are ordered by their bytes, shorter values first"
    "Chave logo após a parte: uma vez por coluna da chave; as chaves se ordenam por bytes, valores mais curtos primeiro";
    "Order it and leave; malote agent status shows what came of it"
    "Faz o pedido e sai; malote agent status mostra o resultado";
    "Send again what differs, then compare once more"
    "Envia de novo o que difere e depois compara outra vez";
    "Tables to compare; left out: all of the plan"
    "Tabelas a comparar; se omitidas, todas do plano";
    "Wait for the end; this is the default"
    "Espera o fim; é o padrão";
    "With --repair: tell what would be sent and deleted, and repair nothing"
    "Com --repair: diz o que seria enviado e excluído, sem reparar nada";
};
